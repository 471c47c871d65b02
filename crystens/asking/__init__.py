"""Questions to a model: formulas, elements, space groups, and which orbits a crystal that answers may have."""
