//! placeholder
use crate::guest::{Results, Setup};
use anyhow::Result;
/// a
pub fn kernel(_: &Setup, _: &mut Results) -> Result<()> {
    Ok(())
}
/// b
pub fn kernel_and_uvti(_: &Setup, _: &mut Results) -> Result<()> {
    Ok(())
}
