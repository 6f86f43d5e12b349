//! The indicators that somebody asked for, running over one series of bars.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use schemas::WireError;
use schemas::config::ConfigError;

use super::block::{BLOCK_BARS, Block, Column, STEP_BARS, Step};
use super::registry::{REGISTRY, Setting, output_names};
use super::{Indicator, Ohlcv, family};

/// Seconds in 365 days.
const YEAR_SECONDS: f64 = 365.0 * 86_400.0;

/// All or some outputs of one series (one symbol, one timeframe). Only kernels with a wanted output run.
pub struct Set {
    kernels: Vec<Box<dyn Indicator>>,
    /// Outputs of all kernels side by side, and whether each was asked for.
    names: Vec<&'static str>,
    wanted: Vec<bool>,
}

impl Set {
    /// `outputs`: full names such as `bbands.upper`; `None` = every output. `timeframe_seconds`: the length of a bar,
    /// the unit of annualised volatility; 0 for bars that are not cut by time, which have none.
    pub fn new(outputs: Option<&[String]>, timeframe_seconds: u32) -> Result<Self, ConfigError> {
        if let Some(outputs) = outputs {
            check(outputs)?;
        }
        let wanted = |name: &str| outputs.is_none_or(|list| list.iter().any(|wanted| wanted == name));
        let bars_per_year = if timeframe_seconds == 0 { f64::NAN } else { YEAR_SECONDS / f64::from(timeframe_seconds) };
        let entries: Vec<_> = REGISTRY.iter().filter(|entry| entry.outputs.iter().any(|name| wanted(name))).collect();
        let names: Vec<_> = entries.iter().flat_map(|entry| entry.outputs.iter().copied()).collect();
        Ok(Self {
            kernels: entries.iter().map(|entry| entry.make(Setting { bars_per_year })).collect(),
            wanted: names.iter().map(|name| wanted(name)).collect(),
            names,
        })
    }

    /// Folds the next closed bar. Bars come in order and without holes; the caller fills empty buckets.
    pub fn update(&mut self, bar: &Ohlcv) {
        for kernel in &mut self.kernels {
            kernel.update(bar);
        }
    }

    /// Outputs of the newest bar of all kernels, wanted or not; `NaN` = none.
    fn rows(&self) -> impl Iterator<Item = f64> + '_ {
        self.kernels.iter().flat_map(|kernel| kernel.row().iter().copied())
    }

    /// Wanted outputs of the newest bar that have a value, in registry order.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        let all = self.names.iter().zip(self.rows()).zip(&self.wanted);
        all.filter(|((_, value), wanted)| **wanted && !value.is_nan()).map(|((name, value), _)| (*name, value))
    }

    /// Wanted outputs, warmed up or not, in registry order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.names.iter().zip(&self.wanted).filter(|(_, wanted)| **wanted).map(|(name, _)| *name)
    }

    /// The same as `update` for each bar, kept as columns. Faster, same bits.
    pub fn run(&mut self, bars: &[Ohlcv]) -> Columns {
        let mut columns = Vec::new();
        self.run_into(bars, &mut columns);
        Columns(self.names().zip(columns).collect())
    }

    /// The same into columns that are used again: one per wanted output, in registry order, made as long as `bars`.
    pub fn run_into(&mut self, bars: &[Ohlcv], columns: &mut Vec<Vec<f64>>) {
        columns.resize_with(self.names().count(), Vec::new);
        for column in columns.iter_mut() {
            column.clear();
            column.reserve_exact(bars.len());
        }
        let mut room = Room::default();
        for bars in bars.chunks(BLOCK_BARS) {
            room.bars.fill(bars);
            self.run_block(&mut room, bars.len());
            for (column, said) in columns.iter_mut().zip(self.said(&room, bars.len())) {
                column.extend_from_slice(said);
            }
        }
    }

    /// The same for the first `len` bars of a block.
    pub fn run_block(&mut self, room: &mut Room, len: usize) {
        let Room { bars, out } = room;
        out.resize(self.names.len(), [f64::NAN; BLOCK_BARS]);
        for step in Step::whole(len) {
            let mut rest = &mut out[..];
            for kernel in &mut self.kernels {
                rest = kernel.run(bars, step, rest);
            }
        }
        for i in len / STEP_BARS * STEP_BARS..len {
            self.update(&bars.bar(i));
            for (column, value) in out.iter_mut().zip(self.rows()) {
                column[i] = value;
            }
        }
    }

    /// What [`Set::run_block`] of as many bars has put into `room`: a column per wanted output, in registry order.
    pub fn said<'a>(&self, room: &'a Room, len: usize) -> impl Iterator<Item = &'a [f64]> {
        room.out.iter().zip(&self.wanted).filter(|(_, wanted)| **wanted).map(move |(column, _)| &column[..len])
    }

    /// Everything that later values depend on, bit for bit.
    pub fn state(&self) -> SetState {
        let kernels = self.kernels.iter();
        SetState {
            kernels: kernels.map(|kernel| (kernel.outputs()[0].to_owned(), Bytes(kernel.save()))).collect(),
            values: self.rows().collect(),
        }
    }

    /// Puts back the state of a set with the same outputs. On an error the set is as it was.
    pub fn restore(&mut self, state: &SetState) -> Result<(), WireError> {
        let same = self.kernels.len() == state.kernels.len()
            && self.names.len() == state.values.len()
            && self.kernels.iter().zip(&state.kernels).all(|(mine, (name, _))| mine.outputs()[0] == name);
        if !same {
            return Err(WireError::invalid("the saved state is of other indicators than the configuration asks for"));
        }
        let mut kernels: Vec<_> = self.kernels.iter().map(|kernel| kernel.boxed_clone()).collect();
        let mut values = state.values.iter();
        for (kernel, (_, bytes)) in kernels.iter_mut().zip(&state.kernels) {
            kernel.restore(&bytes.0)?;
            for (value, saved) in kernel.row_mut().iter_mut().zip(&mut values) {
                *value = *saved;
            }
        }
        self.kernels = kernels;
        Ok(())
    }
}

/// Room for a block of bars and for what the kernels of a set say of them.
#[derive(Default)]
pub struct Room {
    pub bars: Block,
    /// One per output of every running kernel, wanted or not.
    out: Vec<Column>,
}

impl Clone for Set {
    fn clone(&self) -> Self {
        Self {
            kernels: self.kernels.iter().map(|kernel| kernel.boxed_clone()).collect(),
            names: self.names.clone(),
            wanted: self.wanted.clone(),
        }
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.names.iter().zip(self.rows())).finish()
    }
}

/// Names that exist and are asked for once.
pub fn check(outputs: &[String]) -> Result<(), ConfigError> {
    for (i, name) in outputs.iter().enumerate() {
        if outputs[..i].contains(name) {
            return Err(ConfigError::value("indicators", format_args!("`{name}` is named twice")));
        }
        if output_names().any(|known| known == name) {
            continue;
        }
        let near: Vec<_> = output_names().filter(|known| family(known) == family(name)).collect();
        let families = || {
            let mut all: Vec<_> = output_names().map(family).collect();
            all.dedup();
            all.join(", ")
        };
        let allowed = if near.is_empty() { format!("families are {}", families()) } else { near.join(", ") };
        return Err(ConfigError::value("indicators", format_args!("`{name}` is no indicator output; {allowed}")));
    }
    Ok(())
}

/// One column per wanted output, in registry order, one row per bar, `NaN` = no value.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns(pub Vec<(&'static str, Vec<f64>)>);

/// A saved [`Set`]; part of its owner's checkpoint. All outputs after a long warm-up are about 20 kB in MessagePack.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SetState {
    /// First output of each kernel and its state.
    kernels: Vec<(String, Bytes)>,
    values: Vec<f64>,
}

/// Bytes that MessagePack keeps as bytes instead of a list of numbers.
#[derive(Clone, PartialEq, Debug)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}
impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
            // Formats without bytes (JSON) write a list.
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes))
            }
        }
        d.deserialize_byte_buf(Visitor)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bars of a market that jumps, rests, and sometimes trades nothing.
    pub fn market(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Ohlcv>> {
        let step = (prop_oneof![6 => -40i32..40, 3 => Just(0), 1 => -4000i32..4000], 0i32..30, 0i32..30, 0u32..50);
        (prop::collection::vec(step, len), 0i64..1440).prop_map(|(steps, minute)| {
            let mut price = 50_000i32;
            let bars = steps.into_iter().enumerate().map(|(i, (step, up, down, volume))| {
                let open = price;
                price = (price + step).max(1000);
                let cents = |x: i32| f64::from(x) / 100.0;
                // Every third volume is nothing, and a resting price has no reach then.
                let rests = step == 0 && volume % 3 == 0;
                Ohlcv {
                    open_ns: (minute + i as i64) * 60_000_000_000,
                    open: cents(open),
                    high: cents(open.max(price) + if rests { 0 } else { up }),
                    low: cents(open.min(price) - if rests { 0 } else { down }),
                    close: cents(price),
                    volume: if volume % 3 == 0 { 0.0 } else { f64::from(volume) / 16.0 },
                }
            });
            bars.collect()
        })
    }

    pub fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|x| x.to_bits()).collect()
    }

    /// Columns as a stream gives them, through a save and a restore before bar `cut`.
    pub fn streamed(outputs: Option<&[String]>, bars: &[Ohlcv], cut: usize) -> Vec<(&'static str, Vec<f64>)> {
        let mut set = Set::new(outputs, 60).unwrap();
        let mut columns: Vec<_> = set.names().map(|name| (name, Vec::new())).collect();
        for (i, bar) in bars.iter().enumerate() {
            if i == cut {
                let bytes = schemas::wire::encode(&set.state());
                set = Set::new(outputs, 60).unwrap();
                set.restore(&schemas::wire::decode(&bytes).unwrap()).unwrap();
            }
            set.update(bar);
            let mut row = set.values().peekable();
            for (name, column) in &mut columns {
                column.push(row.next_if(|(is, _)| is == name).map_or(f64::NAN, |(_, value)| value));
            }
            assert!(row.next().is_none());
        }
        columns
    }

    /// Equal names and bits; all `NaN` count as one, because the stream leaves them out.
    pub fn same(a: &[(&'static str, Vec<f64>)], b: &[(&'static str, Vec<f64>)]) -> bool {
        let plain = |x: &f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
        a.len() == b.len()
            && a.iter().zip(b).all(|((an, av), (bn, bv))| an == bn && av.iter().map(plain).eq(bv.iter().map(plain)))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn a_stream_cut_anywhere_gives_the_bits_of_the_columns(bars in market(0..700), cut in 0usize..700) {
            let batch = Set::new(None, 60).unwrap().run(&bars);
            prop_assert!(same(&streamed(None, &bars, cut), &batch.0));
        }

        #[test]
        fn columns_in_two_runs_are_those_of_one(bars in market(0..1200), cut in 0usize..1200) {
            let whole = Set::new(None, 60).unwrap().run(&bars);
            let cut = cut.min(bars.len());
            let mut set = Set::new(None, 60).unwrap();
            let (first, second) = (set.run(&bars[..cut]), set.run(&bars[cut..]));
            for ((name, whole), (a, b)) in whole.0.iter().zip(first.0.iter().zip(&second.0)) {
                prop_assert_eq!(bits(whole), [bits(&a.1), bits(&b.1)].concat(), "{}", name);
            }
        }
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_subset_runs_only_its_kernels_and_gives_the_same_values() {
        let wanted = names(&["bbands.upper", "ema.ema_9"]);
        let mut some = Set::new(Some(&wanted), 60).unwrap();
        let mut all = Set::new(None, 60).unwrap();
        assert_eq!(some.kernels.len(), 2);
        assert_eq!(some.names().collect::<Vec<_>>(), ["ema.ema_9", "bbands.upper"]);
        for i in 0..40i64 {
            let close = (i % 7) as f64 + 10.0;
            let bar = Ohlcv { open_ns: i, open: close, high: close, low: close, close, volume: 1.0 };
            some.update(&bar);
            all.update(&bar);
            assert_eq!(some.values().count(), usize::from(i >= 8) + usize::from(i >= 19));
        }
        let theirs: Vec<_> = all.values().filter(|(name, _)| wanted.iter().any(|w| w == name)).collect();
        assert_eq!(some.values().collect::<Vec<_>>(), theirs);
        assert_eq!(all.names().count(), output_names().count());
    }

    #[test]
    fn an_unknown_name_is_refused_with_what_is_allowed() {
        let text = |list: &[&str]| Set::new(Some(&names(list)), 60).unwrap_err().to_string();
        assert_eq!(
            text(&["rsi.rsi_9"]),
            "configuration: indicators: `rsi.rsi_9` is no indicator output; rsi.rsi_7, rsi.rsi_14"
        );
        assert!(text(&["nonsense"]).contains("families are sma, ema, "));
        assert!(text(&["rsi.rsi_7", "rsi.rsi_7"]).contains("named twice"));
    }

    #[test]
    fn the_state_of_other_indicators_is_refused_and_changes_nothing() {
        let mut set = Set::new(Some(&names(&["rsi.rsi_7"])), 60).unwrap();
        let before = schemas::wire::encode(&set.state());
        let other = Set::new(Some(&names(&["rsi.rsi_14"])), 60).unwrap().state();
        assert!(set.restore(&other).is_err());
        let mut broken = set.state();
        broken.kernels[0].1.0.truncate(3);
        assert!(set.restore(&broken).is_err());
        assert_eq!(schemas::wire::encode(&set.state()), before);
    }

    #[test]
    fn bars_that_are_not_cut_by_time_have_no_annualised_volatility() {
        let mut set = Set::new(Some(&names(&["realised_vol.rv_20", "realised_vol.ewma_var_094"])), 0).unwrap();
        for i in 0..60i64 {
            let close = (i % 7) as f64 + 10.0;
            set.update(&Ohlcv { open_ns: i, open: close, high: close, low: close, close, volume: 1.0 });
        }
        assert_eq!(set.values().map(|(name, _)| name).collect::<Vec<_>>(), ["realised_vol.ewma_var_094"]);
    }

    #[test]
    fn a_saved_set_stays_small() {
        let mut set = Set::new(None, 60).unwrap();
        for i in 0..1000i64 {
            let close = (i % 77) as f64 + 0.1;
            set.update(&Ohlcv { open_ns: i, open: close, high: close, low: close, close, volume: 0.7 });
        }
        let bytes = schemas::wire::encode(&set.state()).len();
        assert!(bytes < 24_000, "{bytes}");
    }
}
