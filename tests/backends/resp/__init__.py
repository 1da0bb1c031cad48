"""Tests of what a Redis node is made of."""
