"""Layers that parts are made of; no method has its name here."""
