"""The small world of an evaluation."""

from ..evaluation import world as world
