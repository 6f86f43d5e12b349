//! Orders in Binance's words: parameters in, checks with the venue's codes, answers of three sizes.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use schemas::num::parse_decimal;

use super::Binance;
use super::rest::ApiError;
use super::user::{eight, json_text};
use crate::book::Side;
use crate::floor::{self, Floor};
use crate::instrument::{Spec, decimal_text};
use crate::orders::{Ask, Life, Order, Refusal, State, Trigger, value};

pub type Params = BTreeMap<String, String>;

/// An order's numbers as texts of its market.
pub struct Words {
    pub type_word: String,
    pub life_word: String,
    pub qty: String,
    pub filled: String,
    pub price: String,
    pub stop: String,
    pub value: String,
    pub average: String,
}

pub fn words(spec: &Spec, order: &Order) -> Words {
    let scale = if spec.inverse { 8 } else { spec.price.s + spec.size.s };
    let ask = &order.ask;
    let average = match order.filled {
        0 => spec.price.text(0),
        filled => decimal_text(
            order.price_lots * i128::from(spec.price.m) * 100_000 / i128::from(filled),
            spec.price.s + 5,
            spec.price.s + 5,
        ),
    };
    Words {
        type_word: ask.type_word.clone(),
        life_word: ask.life_word.clone(),
        qty: spec.size.text(ask.qty),
        filled: spec.size.text(order.filled),
        price: spec.price.text(ask.limit.unwrap_or(0)),
        stop: spec.price.text(ask.trigger.map_or(0, |t| t.price)),
        value: decimal_text(order.value, scale, 8),
        average,
    }
}

pub fn status(order: &Order) -> &'static str {
    match order.state {
        State::Untriggered => "NEW",
        State::Open if order.filled > 0 => "PARTIALLY_FILLED",
        State::Open => "NEW",
        State::Filled => "FILLED",
        State::Cancelled => "CANCELED",
        State::Expired => "EXPIRED",
        State::Rejected => "REJECTED",
    }
}

fn refuse(code: i64, msg: impl Into<String>) -> ApiError {
    ApiError { status: 400, code, msg: msg.into() }
}

/// A parameter that must be there.
pub fn need<'a>(params: &'a Params, key: &str) -> Result<&'a str, ApiError> {
    match params.get(key).map(String::as_str) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(missing(key)),
    }
}

fn missing(key: &str) -> ApiError {
    refuse(-1102, format!("Mandatory parameter '{key}' was not sent, was empty/null, or malformed."))
}

pub fn instrument(floor: &Floor, params: &Params) -> Result<usize, ApiError> {
    floor.market.find(need(params, "symbol")?).ok_or_else(|| refuse(-1121, "Invalid symbol."))
}

impl Binance {
    /// Reads and checks an order; the order of the checks is the venue's: words, precision, filters.
    fn read(&self, floor: &Floor, params: &Params) -> Result<Ask, ApiError> {
        let i = instrument(floor, params)?;
        let listing = floor.market.listing(i);
        let spec = &listing.spec;
        let side = match need(params, "side")? {
            "BUY" => Side::Buy,
            "SELL" => Side::Sell,
            _ => return Err(refuse(-1117, "Invalid side.")),
        };
        let word = need(params, "type")?;
        let futures = self.futures();
        let (limited, stop) = match (word, futures) {
            ("LIMIT", _) | ("LIMIT_MAKER", false) => (true, None),
            ("MARKET", _) => (false, None),
            ("STOP_LOSS", false) => (false, Some(side == Side::Buy)),
            ("STOP_LOSS_LIMIT", false) => (true, Some(side == Side::Buy)),
            ("TAKE_PROFIT", false) => (false, Some(side == Side::Sell)),
            ("TAKE_PROFIT_LIMIT", false) => (true, Some(side == Side::Sell)),
            ("STOP" | "STOP_MARKET" | "TAKE_PROFIT" | "TAKE_PROFIT_MARKET" | "TRAILING_STOP_MARKET", true) => {
                return Err(refuse(
                    -4120,
                    "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead.",
                ));
            }
            _ => return Err(refuse(-1116, "Invalid orderType.")),
        };
        let (life_word, life, gtx) = match params.get("timeInForce").map(String::as_str) {
            Some("GTC") => ("GTC", Life::UntilCancelled, false),
            Some("IOC") => ("IOC", Life::ImmediateOrCancel, false),
            Some("FOK") => ("FOK", Life::FillOrKill, false),
            Some("GTX") if futures => ("GTX", Life::UntilCancelled, true),
            Some(_) => return Err(refuse(-1115, "Invalid timeInForce.")),
            None if limited && word != "LIMIT_MAKER" => return Err(missing("timeInForce")),
            None => ("GTC", if limited { Life::UntilCancelled } else { Life::ImmediateOrCancel }, false),
        };
        let limit = match limited {
            true => Some(self.price(spec, need(params, "price")?)?),
            false => None,
        };
        let trigger = match stop {
            Some(rising) => Some(Trigger { price: self.price(spec, need(params, "stopPrice")?)?, rising }),
            None => None,
        };
        let qty = match (params.get("quantity"), params.get("quoteOrderQty")) {
            (None, Some(quote)) if word == "MARKET" && !futures => {
                let quote = self.decimal("quoteOrderQty", quote)?;
                let touch = listing.book.best(side.other()).unwrap_or(1);
                let lot_worth = value(spec, touch, 1);
                i64::try_from((quote / lot_worth).trunc().mantissa()).unwrap_or(0)
            }
            _ => self.quantity(spec, need(params, "quantity")?)?,
        };
        let touch = listing.book.best(side.other()).unwrap_or(1);
        let worth = value(spec, limit.unwrap_or(touch), qty);
        let reduce_only = futures && params.get("reduceOnly").is_some_and(|r| r == "true");
        if !spec.inverse && !reduce_only && worth < Decimal::from(spec.min_notional) {
            return Err(match futures {
                true => refuse(
                    -4164,
                    format!(
                        "Order's notional must be no smaller than {} (unless you choose reduce only).",
                        spec.min_notional
                    ),
                ),
                false => refuse(-1013, "Filter failure: NOTIONAL"),
            });
        }
        let reference = listing.index() / spec.price.step();
        if limit.is_some_and(|l| (l as f64) > reference * 5.0 || (l as f64) < reference * 0.2) {
            return Err(match futures {
                true => refuse(-4131, "The counterparty's best price does not meet the PERCENT_PRICE filter limit."),
                false => refuse(-1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
            });
        }
        let client = match params.get("newClientOrderId") {
            Some(id) if id.len() > 36 || id.is_empty() || id.bytes().any(|b| b.is_ascii_control() || b == b'"') => {
                return Err(refuse(
                    -1100,
                    "Illegal characters found in parameter 'newClientOrderId'; legal range is '^[\\.A-Z\\:/a-z0-9_-]{1,36}$'.",
                ));
            }
            Some(id) => id.clone(),
            None => format!("sim-{}", self.next_execution),
        };
        if floor.desk.open().any(|o| o.ask.client == client) {
            return Err(match futures {
                true => refuse(-4116, "ClientOrderId is duplicated."),
                false => refuse(-2010, "Duplicate order sent."),
            });
        }
        Ok(Ask {
            instrument: i,
            side,
            type_word: word.to_owned(),
            life_word: life_word.to_owned(),
            life,
            limit,
            trigger,
            qty,
            client,
            post_only: word == "LIMIT_MAKER" || gtx,
            reduce_only,
        })
    }

    fn decimal(&self, key: &str, text: &str) -> Result<Decimal, ApiError> {
        let value = parse_decimal(text)
            .map_err(|_| refuse(-1100, format!("Illegal characters found in parameter '{key}'; legal range is '^([0-9]{{1,20}})(\\.[0-9]{{1,20}})?$'.")))?;
        if value <= Decimal::ZERO {
            return Err(refuse(-1013, format!("Invalid {key}.")));
        }
        Ok(value)
    }

    fn price(&self, spec: &Spec, text: &str) -> Result<i64, ApiError> {
        let value = self.decimal("price", text)?;
        if value.scale() > spec.price.digits {
            return Err(refuse(-1111, "Parameter 'price' has too much precision."));
        }
        spec.price.units(text).ok_or_else(|| match self.futures() {
            true => refuse(-4014, "Price not increased by tick size."),
            false => refuse(-1013, "Filter failure: PRICE_FILTER"),
        })
    }

    fn quantity(&self, spec: &Spec, text: &str) -> Result<i64, ApiError> {
        let value = self.decimal("quantity", text)?;
        if value.scale() > spec.size.digits {
            return Err(refuse(-1111, "Parameter 'quantity' has too much precision."));
        }
        spec.size.units(text).ok_or_else(|| match self.futures() {
            true => refuse(-4023, "Quantity not increased by step size."),
            false => refuse(-1013, "Filter failure: LOT_SIZE"),
        })
    }

    /// `POST order`: the answer's body. `test` only checks.
    pub(super) fn new_order(&mut self, floor: &mut Floor, params: &Params, test: bool) -> Result<String, ApiError> {
        if floor.recorded.is_some() {
            return Err(refuse(-1013, "This action is disabled: the simulator plays a recording."));
        }
        let ask = self.read(floor, params)?;
        if test {
            return Ok("{}".to_owned());
        }
        let word = ask.type_word.clone();
        let futures = self.futures();
        let i = ask.instrument;
        let client = ask.client.clone();
        let immediate = ask.life != Life::UntilCancelled;
        let id = match floor::place(self, floor, ask) {
            Ok(id) => id,
            Err(Refusal::FillOrKill) if !futures => {
                // Spot takes it in and lets it expire at once.
                return Ok(format!(
                    r#"{{"symbol":"{}","orderId":-1,"orderListId":-1,"clientOrderId":{},"transactTime":{},"status":"EXPIRED"}}"#,
                    floor.market.listing(i).spec.symbol,
                    json_text(&client),
                    floor.now_ms()
                ));
            }
            Err(refusal) => return Err(self.refusal(refusal)),
        };
        let Some(order) = floor.desk.order(id) else { return Err(refuse(-1000, "The order was forgotten.")) };
        let spec = &floor.market.listing(i).spec;
        let usual = match (futures, word.as_str()) {
            (true, _) => "ACK",
            (false, "LIMIT" | "MARKET") => "FULL",
            (false, _) => "ACK",
        };
        let size = params.get("newOrderRespType").map_or(usual, String::as_str);
        if futures {
            // An ACK of the futures looks like a RESULT of an order that has not traded yet.
            let fresh = Order { filled: 0, value: 0, fills: Vec::new(), state: State::Open, ..order.clone() };
            let shown = if size == "RESULT" || (immediate && size != "ACK") { order } else { &fresh };
            return Ok(futures_order(spec, shown, false));
        }
        let head = format!(
            r#""symbol":"{}","orderId":{id},"orderListId":-1,"clientOrderId":{},"transactTime":{}"#,
            spec.symbol,
            json_text(&order.ask.client),
            order.updated_ns / 1_000_000
        );
        if size == "ACK" {
            return Ok(format!("{{{head}}}"));
        }
        let w = words(spec, order);
        let body = format!(
            r#"{head},"price":"{}","origQty":"{}","executedQty":"{}","origQuoteOrderQty":"0.00000000","cummulativeQuoteQty":"{}","status":"{}","timeInForce":"{}","type":"{}","side":"{}","workingTime":{},"selfTradePreventionMode":"NONE""#,
            w.price,
            w.qty,
            w.filled,
            w.value,
            status(order),
            w.life_word,
            w.type_word,
            order.ask.side.upper(),
            order.created_ns / 1_000_000
        );
        if size != "FULL" {
            return Ok(format!("{{{body}}}"));
        }
        let fills: Vec<String> = order
            .fills
            .iter()
            .map(|f| {
                format!(
                    r#"{{"price":"{}","qty":"{}","commission":"{}","commissionAsset":"{}","tradeId":{}}}"#,
                    spec.price.text(f.price),
                    spec.size.text(f.qty),
                    eight(f.fee),
                    f.fee_coin,
                    f.trade
                )
            })
            .collect();
        Ok(format!(r#"{{{body},"fills":[{}]}}"#, fills.join(",")))
    }

    fn refusal(&self, refusal: Refusal) -> ApiError {
        match (refusal, self.futures()) {
            (Refusal::Funds, false) => refuse(-2010, "Account has insufficient balance for requested action."),
            (Refusal::Funds, true) => refuse(-2019, "Margin is insufficient."),
            (Refusal::WouldTake, false) => refuse(-2010, "Order would immediately match and take."),
            (Refusal::WouldTake, true) => {
                refuse(-5022, "Due to the order could not be executed as maker, the Post Only order will be rejected.")
            }
            (Refusal::ReduceOnly, _) => refuse(-2022, "ReduceOnly Order is rejected."),
            (Refusal::TooManyOpen, false) => refuse(-2010, "Filter failure: MAX_NUM_ORDERS"),
            (Refusal::TooManyOpen, true) => refuse(-4045, "Reach max open order limit."),
            (Refusal::Duplicate, _) => refuse(-2010, "Duplicate order sent."),
            (Refusal::NoLiquidity, _) => refuse(-2010, "Market is closed."),
            (Refusal::FillOrKill, _) => {
                refuse(-5021, "Due to the order could not be filled immediately, the FOK order has been rejected.")
            }
        }
    }

    /// The order that `orderId` or `origClientOrderId` names.
    fn named<'a>(&self, floor: &'a Floor, params: &Params) -> Result<Option<&'a Order>, ApiError> {
        let i = instrument(floor, params)?;
        let found = match (params.get("orderId"), params.get("origClientOrderId")) {
            (Some(id), _) => {
                let id = id.parse().map_err(|_| {
                    refuse(-1102, "Mandatory parameter 'orderId' was not sent, was empty/null, or malformed.")
                })?;
                floor.desk.order(id)
            }
            (None, Some(client)) => floor.desk.by_client(client),
            (None, None) => {
                return Err(refuse(
                    -1102,
                    "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!",
                ));
            }
        };
        Ok(found.filter(|o| o.ask.instrument == i))
    }

    pub(super) fn cancel_order(&mut self, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
        let unknown = || refuse(-2011, "Unknown order sent.");
        let id = self.named(floor, params)?.filter(|o| !o.state.closed()).map(|o| o.id).ok_or_else(unknown)?;
        if !floor::cancel(self, floor, id) {
            return Err(unknown());
        }
        let order = floor.desk.order(id).ok_or_else(unknown)?;
        Ok(cancelled(&floor.market.listing(order.ask.instrument).spec, order))
    }

    pub(super) fn cancel_all(&mut self, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
        let i = instrument(floor, params)?;
        let ids: Vec<u64> = super::user::open_orders(floor, Some(i)).map(|o| o.id).collect();
        if ids.is_empty() && !self.futures() {
            return Err(refuse(-2011, "Unknown order sent."));
        }
        for id in &ids {
            floor::cancel(self, floor, *id);
        }
        if self.futures() {
            return Ok(r#"{"code":200,"msg":"The operation of cancel all open order is done."}"#.to_owned());
        }
        let spec = &floor.market.listing(i).spec;
        let rows: Vec<String> = ids.iter().filter_map(|id| floor.desk.order(*id)).map(|o| cancelled(spec, o)).collect();
        Ok(format!("[{}]", rows.join(",")))
    }

    pub(super) fn query_order(&self, floor: &Floor, params: &Params) -> Result<String, ApiError> {
        let order = self.named(floor, params)?.ok_or_else(|| refuse(-2013, "Order does not exist."))?;
        Ok(self.shown(floor, order))
    }

    /// An order as the queries show it.
    pub(super) fn shown(&self, floor: &Floor, order: &Order) -> String {
        let spec = &floor.market.listing(order.ask.instrument).spec;
        if self.futures() {
            return futures_order(spec, order, true);
        }
        let w = words(spec, order);
        format!(
            r#"{{"symbol":"{}","orderId":{},"orderListId":-1,"clientOrderId":{},"price":"{}","origQty":"{}","executedQty":"{}","cummulativeQuoteQty":"{}","status":"{}","timeInForce":"{}","type":"{}","side":"{}","stopPrice":"{}","icebergQty":"0.00000000","time":{},"updateTime":{},"isWorking":{},"workingTime":{},"origQuoteOrderQty":"0.00000000","selfTradePreventionMode":"NONE"}}"#,
            spec.symbol,
            order.id,
            json_text(&order.ask.client),
            w.price,
            w.qty,
            w.filled,
            w.value,
            status(order),
            w.life_word,
            w.type_word,
            order.ask.side.upper(),
            w.stop,
            order.created_ns / 1_000_000,
            order.updated_ns / 1_000_000,
            order.state != State::Untriggered,
            order.created_ns / 1_000_000
        )
    }
}

fn cancelled(spec: &Spec, order: &Order) -> String {
    if spec.perpetual {
        return futures_order(spec, order, false);
    }
    let w = words(spec, order);
    format!(
        r#"{{"symbol":"{}","origClientOrderId":{},"orderId":{},"orderListId":-1,"clientOrderId":"cancel-{}","transactTime":{},"price":"{}","origQty":"{}","executedQty":"{}","origQuoteOrderQty":"0.00000000","cummulativeQuoteQty":"{}","status":"CANCELED","timeInForce":"{}","type":"{}","side":"{}","selfTradePreventionMode":"NONE"}}"#,
        spec.symbol,
        json_text(&order.ask.client),
        order.id,
        order.id,
        order.updated_ns / 1_000_000,
        w.price,
        w.qty,
        w.filled,
        w.value,
        w.life_word,
        w.type_word,
        order.ask.side.upper()
    )
}

fn futures_order(spec: &Spec, order: &Order, query: bool) -> String {
    let w = words(spec, order);
    let created = if query { format!(r#""time":{},"#, order.created_ns / 1_000_000) } else { String::new() };
    let cum = if spec.inverse { "cumBase" } else { "cumQuote" };
    format!(
        r#"{{"orderId":{},"symbol":"{}","status":"{}","clientOrderId":{},"price":"{}","avgPrice":"{}","origQty":"{}","executedQty":"{}","cumQty":"{}","{cum}":"{}","timeInForce":"{}","type":"{}","reduceOnly":{},"closePosition":false,"side":"{}","positionSide":"BOTH","stopPrice":"{}","workingType":"CONTRACT_PRICE","priceProtect":false,"origType":"{}","priceMatch":"NONE","selfTradePreventionMode":"EXPIRE_MAKER","goodTillDate":0,{created}"updateTime":{}}}"#,
        order.id,
        spec.symbol,
        status(order),
        json_text(&order.ask.client),
        w.price,
        w.average,
        w.qty,
        w.filled,
        w.filled,
        w.value,
        w.life_word,
        w.type_word,
        order.ask.reduce_only,
        order.ask.side.upper(),
        w.stop,
        w.type_word,
        order.updated_ns / 1_000_000
    )
}
