"""The tables and figures of the papers, each a short declaration, and what lays them out."""
