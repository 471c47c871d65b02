"""Chemistry of compositions: reduced formulas, and whether charges add up."""
