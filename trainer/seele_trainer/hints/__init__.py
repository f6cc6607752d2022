"""The hint controller and its item response theory."""
