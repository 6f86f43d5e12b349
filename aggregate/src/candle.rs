//! The fold from trades to candles, in integers. One [`Folder`] a symbol: trades touch only the bucket of the
//! smallest timeframe; the others are rolled up from it when it closes.
//!
//! Rules (ARCHITECTURE.md, candle rules): buckets are half-open and counted from 1970 in venue trade time; open and
//! close are the first and last trade in source order; a bucket is closed by a trade of a later one or by the clock,
//! and never changes again.

mod bar;
mod folder;
mod gap;
mod sum;

pub use bar::{BarError, BarKind, BarSpec};
pub use folder::{Closed, Columns, Event, Folder, Plan, Saved, Slot};
pub use gap::Gaps;
pub use sum::{FoldError, Sum};
