//! What a correct HTTP/1.1 proxy does with correct traffic.

mod deadlines;
mod fields;
mod messages;
mod pools;
mod proxy_protocol;
mod routing;
mod streams;
