"""Clusters: what a job runs on."""
