mod cluster;
mod hub;
mod orders;
mod scripts;
mod secured;
mod sentinel;
mod stopped;
