mod asking;
pub(in crate::store) mod cluster;
mod table;
