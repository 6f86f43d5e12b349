//! What the stand-ins trade: symbols in each venue's own spelling, and the price and size grids.

use std::fmt::Write;

/// The venues that the simulator can stand in for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum VenueId {
    BinanceSpot,
    BinanceUsdm,
    BinanceCoinm,
    Deribit,
    Hyperliquid,
    MexcSpot,
    MexcContract,
    CoinbaseAdvanced,
    CoinbaseExchange,
    Okx,
    HtxSpot,
    HtxLinear,
    HtxInverse,
}

impl VenueId {
    pub const ALL: [Self; 13] = [
        Self::BinanceSpot,
        Self::BinanceUsdm,
        Self::BinanceCoinm,
        Self::Deribit,
        Self::Hyperliquid,
        Self::MexcSpot,
        Self::MexcContract,
        Self::CoinbaseAdvanced,
        Self::CoinbaseExchange,
        Self::Okx,
        Self::HtxSpot,
        Self::HtxLinear,
        Self::HtxInverse,
    ];

    pub fn is_coinbase(self) -> bool {
        matches!(self, Self::CoinbaseAdvanced | Self::CoinbaseExchange)
    }

    /// The name that the rest of Tapeline uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::BinanceSpot => "binance",
            Self::BinanceUsdm => "binance-usdm",
            Self::BinanceCoinm => "binance-coinm",
            Self::Deribit => "deribit",
            Self::Hyperliquid => "hyperliquid",
            Self::MexcSpot => "mexc",
            Self::MexcContract => "mexc-contract",
            Self::CoinbaseAdvanced => "coinbase",
            Self::CoinbaseExchange => "coinbase-exchange",
            Self::Okx => "okx",
            Self::HtxSpot => "htx",
            Self::HtxLinear => "htx-linear",
            Self::HtxInverse => "htx-inverse",
        }
    }

    pub fn is_binance(self) -> bool {
        matches!(self, Self::BinanceSpot | Self::BinanceUsdm | Self::BinanceCoinm)
    }

    /// The update ids of a symbol's book rise by one; elsewhere they run over all symbols, in jumps.
    pub fn counts_updates(self) -> bool {
        matches!(self, Self::BinanceSpot | Self::MexcSpot | Self::MexcContract)
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|v| v.name() == text)
            .ok_or_else(|| format!("venue `{text}` is not one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A decimal grid: the value of `units` steps is `units * m / 10^s`, printed with `digits` decimals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Mantissa of one step.
    pub m: i64,
    /// Scale of one step.
    pub s: u32,
    /// Decimals that the venue prints; at least `s`.
    pub digits: u32,
}

impl Grid {
    pub const fn new(m: i64, s: u32, digits: u32) -> Self {
        Self { m, s, digits }
    }
    /// One step as a float, for the fair-value process only.
    pub fn step(self) -> f64 {
        self.m as f64 / pow10(self.s) as f64
    }
    pub fn text(self, units: i64) -> String {
        let mut out = String::new();
        self.put(&mut out, units);
        out
    }
    pub fn put(self, out: &mut String, units: i64) {
        put_decimal(out, i128::from(units) * i128::from(self.m), self.s, self.digits);
    }
    /// As a JSON number that reads back as a float: `61800.5`, `20.0`.
    pub fn number(self, units: i64) -> String {
        decimal_number(i128::from(units) * i128::from(self.m), self.s)
    }
    /// How many whole steps a decimal text is; `None` when it is not a decimal or not on the grid.
    pub fn units(self, text: &str) -> Option<i64> {
        let value = schemas::num::parse_decimal(text).ok()?;
        let step = rust_decimal::Decimal::new(self.m, self.s);
        let steps = value.checked_div(step)?;
        if !steps.fract().is_zero() {
            return None;
        }
        i64::try_from(steps.trunc().mantissa() / 10i128.pow(steps.trunc().scale())).ok()
    }
    /// Digits without trailing zeros beyond what one step needs.
    pub fn step_text(self) -> String {
        self.text(1)
    }
}

pub const fn pow10(n: u32) -> i128 {
    10i128.pow(n)
}

/// `mantissa / 10^scale` with exactly `digits` decimals; further digits are cut.
pub fn put_decimal(out: &mut String, mantissa: i128, scale: u32, digits: u32) {
    let value = if digits >= scale { mantissa * pow10(digits - scale) } else { mantissa / pow10(scale - digits) };
    let (sign, value) = if value < 0 { ("-", -value) } else { ("", value) };
    let unit = pow10(digits);
    // Writing to a String cannot fail.
    let _ = match digits {
        0 => write!(out, "{sign}{value}"),
        _ => write!(out, "{sign}{}.{:0width$}", value / unit, value % unit, width = digits as usize),
    };
}

/// The same as text.
pub fn decimal_text(mantissa: i128, scale: u32, digits: u32) -> String {
    let mut out = String::new();
    put_decimal(&mut out, mantissa, scale, digits);
    out
}

/// A JSON float with one decimal at least and no trailing zeros after it.
pub fn decimal_number(mantissa: i128, scale: u32) -> String {
    let mut text = decimal_text(mantissa, scale, scale.max(1));
    while text.ends_with('0') && !text.ends_with(".0") {
        text.pop();
    }
    text
}

/// One tradable thing on one venue.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    pub venue: VenueId,
    /// The venue's own spelling, such as `BTCUSDT`, `BTCUSD_PERP`, `BTC-PERPETUAL`.
    pub symbol: String,
    pub base: String,
    pub quote: String,
    pub price: Grid,
    pub size: Grid,
    /// Sizes are USD (Deribit) or contracts (COIN-M, OKX), settled in the base coin.
    pub inverse: bool,
    /// USD or coins of one contract; 1 where sizes are coins.
    pub contract_size: i64,
    pub perpetual: bool,
    /// Where the fair value begins, quote per base.
    pub start_price: f64,
    /// Smallest order in whole quote units.
    pub min_notional: i64,
}

/// Coins that have a known grid: start price, spot tick, spot lot, USD-M tick, USD-M lot, Deribit tick, Deribit lot.
type Coin = (&'static str, f64, Grid, Grid, Grid, Grid, Grid, Grid);
const fn g(m: i64, s: u32, digits: u32) -> Grid {
    Grid::new(m, s, digits)
}
const COINS: &[Coin] = &[
    ("BTC", 61_800.0, g(1, 2, 8), g(1, 5, 8), g(1, 1, 2), g(1, 3, 3), g(5, 1, 1), g(10, 0, 0)),
    ("ETH", 2_650.0, g(1, 2, 8), g(1, 4, 8), g(1, 2, 2), g(1, 3, 3), g(5, 2, 2), g(1, 0, 0)),
    ("BNB", 520.0, g(1, 1, 8), g(1, 3, 8), g(1, 2, 2), g(1, 2, 2), g(5, 2, 2), g(1, 1, 1)),
    ("SOL", 155.0, g(1, 2, 8), g(1, 3, 8), g(1, 2, 2), g(1, 0, 0), g(1, 2, 2), g(1, 1, 1)),
    ("XRP", 0.58, g(1, 4, 8), g(1, 0, 8), g(1, 4, 4), g(1, 1, 1), g(1, 4, 4), g(1, 0, 0)),
    ("ADA", 0.35, g(1, 4, 8), g(1, 1, 8), g(1, 4, 4), g(1, 0, 0), g(1, 4, 4), g(1, 0, 0)),
    ("DOGE", 0.105, g(1, 5, 8), g(1, 0, 8), g(1, 5, 5), g(1, 0, 0), g(1, 5, 5), g(1, 0, 0)),
    ("AVAX", 22.0, g(1, 2, 8), g(1, 2, 8), g(1, 3, 3), g(1, 0, 0), g(1, 3, 3), g(1, 1, 1)),
    ("LTC", 62.0, g(1, 2, 8), g(1, 3, 8), g(1, 2, 2), g(1, 3, 3), g(1, 2, 2), g(1, 1, 1)),
    ("LINK", 10.5, g(1, 2, 8), g(1, 2, 8), g(1, 3, 3), g(1, 2, 2), g(1, 3, 3), g(1, 0, 0)),
];
const QUOTES: &[&str] = &["USDT", "USDC", "FDUSD", "BUSD", "TUSD", "EUR", "USD"];

impl Spec {
    /// Reads `BTCUSDT`, `BTC_USDT`, `BTCUSD_PERP`, `BTC-USD`, `BTC-PERPETUAL`, `SOL_USDC-PERPETUAL`, each with an optional
    /// `@PRICE` to begin at, and spells it as `venue` does: `BTCUSDT` is `BTCUSD_PERP` on COIN-M and `BTC-PERPETUAL` on
    /// Deribit. On Hyperliquid the coin alone is enough; on OKX `-SWAP` behind a pair asks for the swap.
    pub fn parse(venue: VenueId, text: &str) -> Result<Self, String> {
        let (name, price) = match text.split_once('@') {
            Some((name, price)) => {
                let price: f64 = price.parse().map_err(|_| format!("`{price}` in `{text}` is not a price"))?;
                if !(price.is_finite() && price > 0.0) {
                    return Err(format!("the price in `{text}` must be above zero"));
                }
                (name, Some(price))
            }
            None => (text, None),
        };
        let upper = name.to_ascii_uppercase();
        let swap = upper.strip_suffix("-SWAP").filter(|_| venue == VenueId::Okx);
        let spelled = swap.unwrap_or(&upper);
        let coin = (venue == VenueId::Hyperliquid && COINS.iter().any(|c| c.0 == spelled))
            .then(|| (spelled.to_owned(), "USDC".into()));
        let (base, quote) = coin
            .or_else(|| pair(spelled))
            .ok_or_else(|| format!("symbol `{name}` has none of the quotes {}", QUOTES.join(" ")))?;
        let spec = Self::build(venue, &base, &quote, price);
        Ok(if swap.is_some() { crate::okx::swap(spec, spelled.ends_with("USD")) } else { spec })
    }

    fn build(venue: VenueId, base: &str, quote: &str, price: Option<f64>) -> Self {
        let known = COINS.iter().find(|c| c.0 == base);
        let start_price = price.or(known.map(|c| c.1)).unwrap_or(10.0);
        // An unknown coin gets five digits of price and a lot worth about a tenth of a quote unit.
        let mut s = 0;
        while s < 8 && start_price * (pow10(s) as f64) < 10_000.0 {
            s += 1;
        }
        let mut lot_s = 0;
        while lot_s < 6 && start_price / (pow10(lot_s) as f64) > 0.5 {
            lot_s += 1;
        }
        let (inverse, contract_size) = match (venue, base) {
            (VenueId::BinanceCoinm | VenueId::HtxInverse, "BTC") => (true, 100),
            (VenueId::BinanceCoinm | VenueId::HtxInverse, _) => (true, 10),
            (VenueId::Deribit, "BTC") => (true, 10),
            (VenueId::Deribit, "ETH") => (true, 1),
            _ => (false, 1),
        };
        let (price, size) = match (venue, known) {
            (VenueId::BinanceSpot | VenueId::HtxSpot, Some(c)) => (c.2, c.3),
            (VenueId::BinanceSpot | VenueId::HtxSpot, None) => (g(1, s, 8), g(1, lot_s, 8)),
            // A lot is a contract of so many coins.
            (VenueId::HtxLinear, Some(c)) => (c.4, linear_contract(base)),
            (VenueId::HtxLinear, None) => (g(1, s, s), linear_contract(base)),
            (VenueId::BinanceUsdm, Some(c)) => (c.4, c.5),
            (VenueId::BinanceCoinm | VenueId::HtxInverse, Some(c)) => (Grid::new(c.4.m, c.4.s, c.4.s), g(1, 0, 0)),
            (VenueId::BinanceCoinm | VenueId::HtxInverse, None) => (g(1, s, s), g(1, 0, 0)),
            (VenueId::Deribit, Some(c)) => (c.6, c.7),
            // Prices without padding, sizes with eight digits.
            (VenueId::CoinbaseAdvanced | VenueId::CoinbaseExchange, Some(c)) => {
                (g(c.2.m, c.2.s, c.2.s), g(c.3.m, c.3.s, 8))
            }
            (VenueId::CoinbaseAdvanced | VenueId::CoinbaseExchange, None) => (g(1, s, s), g(1, lot_s, 8)),
            (VenueId::Hyperliquid, _) => hyperliquid_grid(base, s, lot_s),
            (VenueId::MexcSpot, Some(c)) => (g(c.2.m, c.2.s, c.2.s), g(c.3.m, c.3.s, c.3.s)),
            // A lot is one contract, and the contract is what it is in coins.
            (VenueId::MexcContract, Some(c)) => {
                let contract = match base {
                    "BTC" => g(1, 4, 4),
                    "ETH" => g(1, 2, 2),
                    _ => c.5,
                };
                (g(c.4.m, c.4.s, c.4.s), contract)
            }
            (VenueId::MexcSpot | VenueId::MexcContract, None) => (g(1, s, s), g(1, lot_s, lot_s)),
            (VenueId::Okx, Some(c)) => (c.4, c.3),
            (VenueId::BinanceUsdm | VenueId::Deribit | VenueId::Okx, None) => (g(1, s, s), g(1, lot_s, lot_s)),
        };
        use VenueId::*;
        let symbol = match venue {
            BinanceSpot | BinanceUsdm | MexcSpot => format!("{base}{quote}"),
            HtxSpot => format!("{base}{quote}").to_lowercase(),
            MexcContract => format!("{base}_{quote}"),
            Okx => format!("{base}-{quote}"),
            BinanceCoinm => format!("{base}USD_PERP"),
            Deribit if inverse => format!("{base}-PERPETUAL"),
            Deribit => format!("{base}_USDC-PERPETUAL"),
            HtxLinear => format!("{base}-USDT"),
            HtxInverse | CoinbaseAdvanced | CoinbaseExchange => format!("{base}-USD"),
            Hyperliquid => base.to_owned(),
        };
        let quote = match venue {
            BinanceSpot | BinanceUsdm | MexcSpot | MexcContract | Okx | HtxSpot => quote,
            HtxLinear => "USDT",
            Hyperliquid => "USDC",
            Deribit if !inverse => "USDC",
            BinanceCoinm | Deribit | HtxInverse | CoinbaseAdvanced | CoinbaseExchange => "USD",
        };
        let spot = matches!(venue, BinanceSpot | MexcSpot | Okx | HtxSpot | CoinbaseAdvanced | CoinbaseExchange);
        Self {
            venue,
            symbol,
            base: base.to_owned(),
            quote: quote.to_owned(),
            price,
            size,
            inverse,
            contract_size,
            perpetual: !spot,
            start_price,
            min_notional: match venue {
                VenueId::BinanceUsdm => 100,
                VenueId::Hyperliquid => 10,
                _ => 5,
            },
        }
    }

    /// Value of a size at a price in quote currency (inverse: in base coin) as mantissa and scale.
    pub fn value(&self, price: i64, size: i64) -> (i128, u32) {
        if self.inverse {
            let coins = i128::from(size) * i128::from(self.size.m) * pow10(self.price.s + 8);
            let contracts = matches!(self.venue, VenueId::BinanceCoinm | VenueId::Okx | VenueId::HtxInverse);
            let per_contract = if contracts { i128::from(self.contract_size) } else { 1 };
            let price = (i128::from(price) * i128::from(self.price.m)).max(1);
            return (coins * per_contract / (price * pow10(self.size.s)), 8);
        }
        let value = i128::from(price) * i128::from(self.price.m) * i128::from(size) * i128::from(self.size.m);
        (value, self.price.s + self.size.s)
    }
}

/// Hyperliquid: sizes of `szDecimals`, prices of five figures at the start price and together at most six decimals. BTC and
/// ETH as recorded; the others' decimals are general knowledge.
fn hyperliquid_grid(base: &str, five_figures: u32, lot_s: u32) -> (Grid, Grid) {
    let size = match base {
        "BTC" => 5,
        "ETH" => 4,
        "BNB" => 3,
        "SOL" | "LTC" | "AVAX" => 2,
        "LINK" => 1,
        "XRP" | "ADA" | "DOGE" => 0,
        _ => lot_s,
    };
    let price = five_figures.min(6 - size);
    (g(1, price, price), g(1, size, size))
}

/// Coins of one linear contract at HTX: BTC and ETH as recorded, the others of its order of magnitude.
fn linear_contract(base: &str) -> Grid {
    match base {
        "BTC" => g(1, 3, 3),
        "ETH" => g(1, 2, 2),
        "BNB" => g(1, 1, 1),
        "XRP" => g(10, 0, 0),
        "DOGE" => g(100, 0, 0),
        _ => g(1, 0, 0),
    }
}

fn pair(name: &str) -> Option<(String, String)> {
    if let Some(rest) = name.strip_suffix("-PERPETUAL") {
        let (base, quote) = rest.split_once('_').unwrap_or((rest, "USD"));
        return Some((base.to_owned(), quote.to_owned())).filter(|(b, _)| !b.is_empty());
    }
    let joined = name.strip_suffix("_PERP").unwrap_or(name).replace(['_', '-'], "");
    let name = joined.as_str();
    QUOTES
        .iter()
        .find_map(|q| name.strip_suffix(q).map(|b| (b.to_owned(), (*q).to_owned())))
        .filter(|(b, _)| !b.is_empty() && b.bytes().all(|c| c.is_ascii_alphanumeric()))
        // A COIN-M name asks for the dollar price of the coin.
        .map(|(b, q)| if q == "USD" { (b, "USDT".to_owned()) } else { (b, q) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_symbol_is_spelled_as_each_venue_does() {
        let names = VenueId::ALL.map(|v| Spec::parse(v, "BTCUSDT").unwrap().symbol);
        let wanted = [
            "BTCUSDT",
            "BTCUSDT",
            "BTCUSD_PERP",
            "BTC-PERPETUAL",
            "BTC",
            "BTCUSDT",
            "BTC_USDT",
            "BTC-USD",
            "BTC-USD",
            "BTC-USDT",
            "btcusdt",
            "BTC-USDT",
            "BTC-USD",
        ];
        assert_eq!(names, wanted);
        assert_eq!(Spec::parse(VenueId::Hyperliquid, "DOGE@0.2").unwrap().symbol, "DOGE");
        assert_eq!(Spec::parse(VenueId::CoinbaseAdvanced, "BTC-USD").unwrap().symbol, "BTC-USD");
        for (text, symbol, inverse) in [
            ("BTC-USDT", "BTC-USDT", false),
            ("BTC-USDT-SWAP", "BTC-USDT-SWAP", false),
            ("BTC-USD-SWAP@60000", "BTC-USD-SWAP", true),
        ] {
            let spec = Spec::parse(VenueId::Okx, text).unwrap();
            assert_eq!((spec.symbol.as_str(), spec.inverse), (symbol, inverse));
        }
        assert_eq!(Spec::parse(VenueId::Deribit, "SOLUSDT").unwrap().symbol, "SOL_USDC-PERPETUAL");
        assert_eq!(Spec::parse(VenueId::BinanceSpot, "BTC-PERPETUAL").unwrap().symbol, "BTCUSD");
        assert_eq!(Spec::parse(VenueId::BinanceSpot, "ETHUSDT@3000.5").unwrap().start_price, 3000.5);
        for bad in ["BTCXYZ", "USDT", "BTCUSDT@", "BTCUSDT@-1", ""] {
            assert!(Spec::parse(VenueId::BinanceSpot, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prices_of_hyperliquid_have_five_figures_and_share_six_decimals_with_sizes() {
        for (coin, price, size) in [
            ("BTC", "1", "0.00001"),
            ("ETH", "0.1", "0.0001"),
            ("SOL", "0.01", "0.01"),
            ("BNB", "0.01", "0.001"),
            ("DOGE", "0.00001", "1"),
            ("XRP", "0.00001", "1"),
        ] {
            let spec = Spec::parse(VenueId::Hyperliquid, coin).unwrap();
            assert_eq!((spec.price.step_text().as_str(), spec.size.step_text().as_str()), (price, size), "{coin}");
            assert!(spec.price.s + spec.size.s <= 6);
        }
    }

    #[test]
    fn numbers_print_as_the_venue_prints_them_and_read_back() {
        let spot = Spec::parse(VenueId::BinanceSpot, "BTCUSDT").unwrap();
        assert_eq!(spot.price.text(6_183_763), "61837.63000000");
        assert_eq!(spot.price.units("61837.63"), Some(6_183_763));
        assert_eq!(spot.price.units("61837.635"), None);
        assert_eq!(spot.size.units("1e2"), Some(10_000_000));
        let deribit = Spec::parse(VenueId::Deribit, "BTCUSDT").unwrap();
        assert_eq!(deribit.price.number(126_649), "63324.5");
        assert_eq!(deribit.size.number(2), "20.0");
        assert_eq!(deribit.size.units("25"), None);
        assert_eq!(decimal_text(-88_170, 3, 2), "-88.17");
        let (m, s) = deribit.value(deribit.price.units("50000").unwrap(), deribit.size.units("1000").unwrap());
        assert_eq!(decimal_text(m, s, 8), "0.02000000");
    }
}
