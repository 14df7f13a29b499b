//! Flow control, both ways.

use super::*;
