"""The control plane of Seele: SeeleRun, its plan, and who carries it out. Imports no torch."""
