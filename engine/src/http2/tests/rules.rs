//! RFC 9113 rule by rule: what is a stream error, a connection error, or fine.

use super::*;
