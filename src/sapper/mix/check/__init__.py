"""Check: a plan, folded to a few processes and a toy of its model, proved equal to one device before a real job runs.

``fold`` makes the plan small without making its parts alike, ``toy`` the model's config; ``world`` runs both and ``prove`` compares.
"""
