//! The list of indicators: one line each, in the order in which outputs are given.
//!
//! A new one is a file with a kernel, its line here and its line in `indicators.md`. Several lines may share a file
//! with other lengths, so that a set which asks for one length runs only that.

use super::adx::Adx;
use super::atr::{Atr, TrueRange};
use super::bop::Bop;
use super::{Indicator, streamed};
use super::{ad, adosc, aroon, bbands, cci, cmf, cmo, correl, dema, donchian, ema, hma, ichimoku, kama, keltner};
use super::{linreg, macd, mfi, midpoint, obv, ppo, psar, realised_vol, roc, rsi, sma, stoch, stochrsi, supertrend};
use super::{t3, tema, trima, trix, ultosc, var, vwap, vwma, willr, wma};

/// What a kernel may know besides the bars.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Bars in 365 days; `NaN` for bars that are not cut by time.
    pub bars_per_year: f64,
}

/// One kernel and the names of its outputs.
pub struct Entry {
    pub outputs: &'static [&'static str],
    make: fn(&'static [&'static str], Setting) -> Box<dyn Indicator>,
}

impl Entry {
    /// A fresh indicator that has seen nothing.
    pub fn make(&self, setting: Setting) -> Box<dyn Indicator> {
        (self.make)(self.outputs, setting)
    }
}

const fn line(
    outputs: &'static [&'static str],
    make: fn(&'static [&'static str], Setting) -> Box<dyn Indicator>,
) -> Entry {
    Entry { outputs, make }
}

/// Every indicator.
pub const REGISTRY: &[Entry] = &[
    line(&["sma.sma_20"], |o, _| streamed(o, sma::Sma::new(20))),
    line(&["sma.sma_50"], |o, _| streamed(o, sma::Sma::new(50))),
    line(&["sma.sma_200"], |o, _| streamed(o, sma::Sma::new(200))),
    line(&["ema.ema_9"], |o, _| streamed(o, ema::Ema::new(9))),
    line(&["ema.ema_12"], |o, _| streamed(o, ema::Ema::new(12))),
    line(&["ema.ema_20"], |o, _| streamed(o, ema::Ema::new(20))),
    line(&["ema.ema_26"], |o, _| streamed(o, ema::Ema::new(26))),
    line(&["ema.ema_50"], |o, _| streamed(o, ema::Ema::new(50))),
    line(&["ema.ema_200"], |o, _| streamed(o, ema::Ema::new(200))),
    line(&["wma.wma_20"], |o, _| streamed(o, wma::Wma::new(20))),
    line(&["wma.vwma_20"], |o, _| streamed(o, vwma::Vwma::new(20))),
    line(&["dema.dema_20"], |o, _| streamed(o, dema::Dema::new(20))),
    line(&["tema.tema_20"], |o, _| streamed(o, tema::Tema::new(20))),
    line(&["rsi.rsi_7"], |o, _| streamed(o, rsi::Rsi::new(7))),
    line(&["rsi.rsi_14"], |o, _| streamed(o, rsi::Rsi::new(14))),
    line(&["macd.macd", "macd.signal", "macd.hist"], |o, _| streamed(o, macd::Macd::new(12, 26, 9))),
    line(&["atr.atr_3"], |o, _| streamed::<_, 1>(o, Atr::new(3))),
    line(&["atr.atr_14", "atr.natr_14"], |o, _| streamed::<_, 2>(o, Atr::new(14))),
    line(&["atr.tr"], |o, _| streamed(o, TrueRange::new())),
    line(&["bbands.lower", "bbands.middle", "bbands.upper", "bbands.std_20_pop"], |o, _| {
        streamed(o, bbands::Bbands::new(20, 2.0))
    }),
    line(&["bbands.bandwidth", "bbands.percent_b"], |o, _| streamed(o, bbands::Place::new(20, 2.0))),
    line(&["stoch.k", "stoch.d", "stoch.fast_k", "stoch.fast_d"], |o, _| streamed(o, stoch::Stoch::new(14, 3, 3))),
    line(&["stochrsi.k", "stochrsi.d"], |o, _| streamed(o, stochrsi::StochRsi::new(14, 14, 3, 3))),
    line(&["adx.adx_14", "adx.plus_di_14", "adx.minus_di_14", "adx.dx_14", "adx.adxr_14"], |o, _| {
        streamed(o, Adx::new(14))
    }),
    line(&["cci.cci_20"], |o, _| streamed(o, cci::Cci::new(20))),
    line(&["obv.obv"], |o, _| streamed(o, obv::Obv::new())),
    line(&["mfi.mfi_14"], |o, _| streamed(o, mfi::Mfi::new(14))),
    line(&["vwap.vwap_session_utc"], |o, _| streamed(o, vwap::Session::new())),
    line(&["vwap.vwap_rolling_20"], |o, _| streamed(o, vwap::Recent::new(20))),
    line(&["donchian.upper_20", "donchian.lower_20", "donchian.mid_20"], |o, _| {
        streamed(o, donchian::Donchian::new(20))
    }),
    line(&["keltner.upper", "keltner.middle", "keltner.lower"], |o, _| streamed(o, keltner::Keltner::new(20, 10, 2.0))),
    line(&["supertrend.supertrend", "supertrend.direction"], |o, _| streamed(o, supertrend::SuperTrend::new(10, 3.0))),
    line(
        &["ichimoku.tenkan_9", "ichimoku.kijun_26", "ichimoku.senkou_a_unshifted", "ichimoku.senkou_b_52_unshifted"],
        |o, _| streamed(o, ichimoku::Ichimoku::new(9, 26, 52)),
    ),
    line(&["roc.roc_10", "roc.mom_10"], |o, _| streamed(o, roc::Roc::new(10))),
    line(&["willr.willr_14"], |o, _| streamed(o, willr::Willr::new(14))),
    line(&["aroon.aroon_up_25", "aroon.aroon_down_25", "aroon.aroon_osc_25"], |o, _| {
        streamed(o, aroon::Aroon::new(25))
    }),
    line(&["psar.psar"], |o, _| streamed(o, psar::Psar::new(0.02, 0.2))),
    line(&["hma.hma_9"], |o, _| streamed(o, hma::Hma::new(9))),
    line(&["hma.hma_16"], |o, _| streamed(o, hma::Hma::new(16))),
    line(&["kama.kama_10"], |o, _| streamed(o, kama::Kama::new(10))),
    line(&["trix.trix_18"], |o, _| streamed(o, trix::Trix::new(18))),
    line(&["cmf.cmf_20"], |o, _| streamed(o, cmf::Cmf::new(20))),
    line(&["realised_vol.rv_20", "realised_vol.rv_20_sumsq", "realised_vol.ewma_var_094"], |o, s| {
        streamed(o, realised_vol::RealisedVol::new(20, s.bars_per_year))
    }),
    line(&["talib_extra.cmo_14"], |o, _| streamed(o, cmo::Cmo::new(14))),
    line(&["talib_extra.ppo"], |o, _| streamed(o, ppo::Ppo::new(12, 26))),
    line(&["talib_extra.ultosc"], |o, _| streamed(o, ultosc::Ultosc::new([7, 14, 28]))),
    line(&["talib_extra.ad"], |o, _| streamed(o, ad::Ad::new())),
    line(&["talib_extra.adosc"], |o, _| streamed(o, adosc::Adosc::new(3, 10))),
    line(&["talib_extra.bop"], |o, _| streamed(o, Bop {})),
    line(&["talib_extra.linreg_slope_14", "talib_extra.linreg_14"], |o, _| streamed(o, linreg::Linreg::new(14))),
    line(&["talib_extra.trima_20"], |o, _| streamed(o, trima::Trima::new(20))),
    line(&["talib_extra.t3_5"], |o, _| streamed(o, t3::T3::new(5, 0.7))),
    line(&["talib_extra.var_20"], |o, _| streamed(o, var::Var::new(20))),
    line(&["talib_extra.midpoint_14"], |o, _| streamed(o, midpoint::Midpoint::new(14))),
    line(&["talib_extra.correl_hl_30"], |o, _| streamed(o, correl::Correl::new(30))),
];

/// All output names in registry order.
pub fn output_names() -> impl Iterator<Item = &'static str> {
    REGISTRY.iter().flat_map(|entry| entry.outputs.iter().copied())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::indicator::{Ohlcv, family};

    const MANUAL: &str = include_str!("indicators.md");

    #[test]
    fn no_name_is_given_twice_and_every_name_says_its_family() {
        let names: Vec<_> = output_names().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for entry in REGISTRY {
            let families: BTreeSet<_> = entry.outputs.iter().map(|name| family(name)).collect();
            assert_eq!(families.len(), 1, "{:?}", entry.outputs);
            let fresh = entry.make(Setting { bars_per_year: 1.0 });
            assert_eq!((fresh.id(), fresh.outputs()), (family(entry.outputs[0]), entry.outputs));
        }
        for name in names {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let (stem, column) = name.split_once('.').expect(name);
            assert!(stem.chars().all(plain) && column.chars().all(plain), "{name}");
        }
    }

    #[test]
    fn every_output_has_its_line_in_the_manual_and_the_manual_names_no_other() {
        let told: Vec<&str> = MANUAL
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
            .flat_map(|(names, _)| names.split("`, `"))
            .collect();
        assert_eq!(told, output_names().collect::<Vec<_>>());
    }

    #[test]
    fn every_indicator_speaks_sooner_or_later_and_never_of_infinity() {
        for entry in REGISTRY {
            let mut indicator = entry.make(Setting { bars_per_year: 365.0 });
            for i in 0..400i64 {
                let close = 100.0 + ((i * 37) % 23) as f64 / 4.0;
                let open_ns = i * 60_000_000_000;
                let bar = Ohlcv {
                    open_ns,
                    open: close - 0.5,
                    high: close + 1.0,
                    low: close - 2.0,
                    close,
                    volume: (i % 5) as f64,
                };
                indicator.update(&bar);
                let out = indicator.row();
                assert!(out.iter().all(|x| !x.is_infinite()), "{:?} at {i}: {out:?}", entry.outputs);
            }
            let out = indicator.row();
            assert!(out.iter().all(|x| x.is_finite()), "{:?}: {out:?}", entry.outputs);
        }
    }

    #[test]
    fn a_market_without_movement_and_volume_gives_no_infinity_and_no_noise() {
        // Windows that only divide by volume have nothing to say; all others know an answer.
        let silent = ["wma.vwma_20", "vwap.vwap_session_utc", "vwap.vwap_rolling_20", "cmf.cmf_20"];
        let price = 411.74;
        let at_price = ["sma.", "ema.", "wma.wma", "dema.", "tema.", "hma.", "kama.", "ichimoku.", "donchian."];
        for entry in REGISTRY {
            let mut indicator = entry.make(Setting { bars_per_year: 365.0 });
            for i in 0..700i64 {
                let bar = Ohlcv { open_ns: i, open: price, high: price, low: price, close: price, volume: 0.0 };
                indicator.update(&bar);
            }
            for (name, value) in entry.outputs.iter().zip(indicator.row().iter().copied()) {
                assert_eq!(value.is_nan(), silent.contains(name), "{name} {value}");
                if at_price.iter().any(|family| name.starts_with(family)) && !value.is_nan() {
                    assert!((value - price).abs() < 1e-11, "{name} {value}");
                }
            }
        }
    }
}
