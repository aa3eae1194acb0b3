"""Puts this folder on the path of every test: ``from sketch import Sketch``."""
