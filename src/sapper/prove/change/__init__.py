"""Prove changes: does what holds for a model hold when its user edits it?"""
