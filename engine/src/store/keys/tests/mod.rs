mod asking;
mod table;
