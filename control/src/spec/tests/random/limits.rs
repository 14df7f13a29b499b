//! Bounds of listeners.

use proptest::prelude::*;

use crate::spec::*;

prop_compose! {
    pub fn limits()(
        (max_connections, header_timeout_ms, idle_timeout_ms, min_body_rate) in
            (1u32..=10_000_000, 1u32..=3_600_000, 1u32..=86_400_000, 1u32..=1 << 30),
        (write_timeout_ms, max_head_bytes, max_fields, max_requests, max_streams) in
            (1u32..=3_600_000, 1024u32..=262_144, 1u16..=128, 1u32.., 1u32..=10_000),
    ) -> Limits {
        Limits {
            max_connections, header_timeout_ms, idle_timeout_ms, min_body_rate,
            write_timeout_ms, max_head_bytes, max_fields, max_requests, max_streams,
        }
    }
}
