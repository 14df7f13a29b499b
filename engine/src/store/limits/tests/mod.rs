mod cluster;
mod hub;
mod scripts;
mod secured;
mod sentinel;
mod stopped;
