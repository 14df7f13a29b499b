mod hub;
mod scripts;
