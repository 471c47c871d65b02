"""Sources by file format: CIF folders, tables, POSCAR, extended XYZ, databases, JSON."""
