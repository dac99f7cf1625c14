//! When plans run: instants, windows, what becomes of each slot, and the forecast of it all. Pure: `now` is an argument.

pub mod fires;
pub mod forecast;
pub mod slot;
pub mod window;

#[cfg(test)]
mod tests;
