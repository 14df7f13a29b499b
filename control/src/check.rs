//! What only the whole spec can tell.

use crate::spec::{Places, Problems, Spec};

/// Adds what is wrong between the parts of a spec to `problems`.
pub fn check(_spec: &Spec, _places: &Places, _problems: &mut Problems) {}
