use super::*;
pub struct Watch;
impl Watch { pub fn new(banner: Banner, segment: Segment, cpus: Vec<usize>, state: StateDirectory, up: &Up) -> Result<Watch, Failure> { todo!() } pub fn run(&mut self, source: Option<Source>) -> Result<(), Failure> { todo!() } }
