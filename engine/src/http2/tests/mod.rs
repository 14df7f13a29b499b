//! Tests of connections, by raw frames.
