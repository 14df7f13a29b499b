//! SETTINGS (RFC 9113 §6.5): what each side tells the other about itself.

use super::error::{ConnectionError, ErrorCode};
use super::flow::MAX_WINDOW;
use super::frame::{FrameHeader, flag, kind};
use super::{Config, Role};

mod id {
    pub const HEADER_TABLE_SIZE: u16 = 0x1;
    pub const ENABLE_PUSH: u16 = 0x2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub const MAX_FRAME_SIZE: u16 = 0x5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 0x6;
    /// RFC 8441 §3.
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
}

/// Bytes of one setting.
const SETTING: usize = 6;

/// What the peer has told, and the defaults until it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerSettings {
    pub header_table: u32,
    pub max_concurrent_streams: u32,
    pub initial_window: u32,
    pub max_frame: u32,
    pub max_header_list: u32,
    pub extended_connect: bool,
}

impl Default for PeerSettings {
    fn default() -> PeerSettings {
        PeerSettings {
            header_table: 4096,
            max_concurrent_streams: u32::MAX,
            initial_window: 65_535,
            max_frame: 16_384,
            max_header_list: u32::MAX,
            extended_connect: false,
        }
    }
}

impl PeerSettings {
    /// Applies the payload of a SETTINGS frame; `role` is ours.
    ///
    /// # Errors
    /// RFC 9113 §6.5.2 names a connection error for the payload.
    pub(super) fn apply(&mut self, payload: &[u8], role: Role) -> Result<(), ConnectionError> {
        if !payload.len().is_multiple_of(SETTING) {
            return Err(ConnectionError::size("SETTINGS is no multiple of 6 bytes"));
        }
        for setting in payload.chunks_exact(SETTING) {
            let &[i0, i1, v0, v1, v2, v3] = setting else { continue };
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([i0, i1]) {
                id::HEADER_TABLE_SIZE => self.header_table = value,
                // A server must not send 1 (§6.5.2); a client may, and we never push.
                id::ENABLE_PUSH if value > 1 || (role == Role::Client && value == 1) => {
                    return Err(ConnectionError::protocol("SETTINGS_ENABLE_PUSH is not allowed"));
                }
                id::MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
                id::INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                    return Err(ConnectionError::new(
                        ErrorCode::FLOW_CONTROL_ERROR,
                        "SETTINGS_INITIAL_WINDOW_SIZE over 2^31-1",
                    ));
                }
                id::INITIAL_WINDOW_SIZE => self.initial_window = value,
                id::MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                    return Err(ConnectionError::protocol("SETTINGS_MAX_FRAME_SIZE out of range"));
                }
                id::MAX_FRAME_SIZE => self.max_frame = value,
                id::MAX_HEADER_LIST_SIZE => self.max_header_list = value,
                id::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                    return Err(ConnectionError::protocol("ENABLE_CONNECT_PROTOCOL over 1"));
                }
                // RFC 8441 §3: once it was 1, it must not become 0 again.
                id::ENABLE_CONNECT_PROTOCOL if self.extended_connect && value == 0 => {
                    return Err(ConnectionError::protocol("ENABLE_CONNECT_PROTOCOL taken back"));
                }
                id::ENABLE_CONNECT_PROTOCOL => self.extended_connect = value == 1,
                _ => {} // §6.5.2: unknown settings are ignored.
            }
        }
        Ok(())
    }
}

/// Appends our SETTINGS frame.
pub(super) fn write(out: &mut Vec<u8>, config: &Config) {
    let mut settings = vec![
        (id::HEADER_TABLE_SIZE, config.header_table),
        (id::INITIAL_WINDOW_SIZE, config.stream_window),
        (id::MAX_FRAME_SIZE, config.max_frame),
        (id::MAX_HEADER_LIST_SIZE, config.max_header_list),
    ];
    match config.role {
        Role::Client => settings.push((id::ENABLE_PUSH, 0)),
        Role::Server => {
            settings.push((id::MAX_CONCURRENT_STREAMS, config.max_concurrent_streams));
            if config.extended_connect {
                settings.push((id::ENABLE_CONNECT_PROTOCOL, 1));
            }
        }
    }
    let length = settings.len() * SETTING;
    FrameHeader { length, kind: kind::SETTINGS, flags: 0, stream: 0 }.write(out);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn write_ack(out: &mut Vec<u8>) {
    FrameHeader { length: 0, kind: kind::SETTINGS, flags: flag::ACK, stream: 0 }.write(out);
}
