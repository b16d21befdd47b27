//! Toy targets and drafters for tests (feature `test-util`).
