//! Client connections: from bytes to exchanges.

pub mod http1;
pub mod tunnel;
pub mod websocket;
