"""The interpretations of underspecified parts of the papers, compared one factor at a time."""
