"""Durable fences: movements through an area become notifications."""
