//! Fixtures that the black-box suites share.
