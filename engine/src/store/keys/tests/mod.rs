mod asking;
mod cluster;
mod table;
