//! The WebSocket API: requests with answers, and the user data of the spot market.

use serde_json::{Value, json};

use super::Binance;
use super::rest::{self, ApiError};
use super::trading::Params;
use crate::floor::Floor;
use crate::hub::ClientId;
use crate::sign::hmac_sha256_hex;

impl Binance {
    pub(super) fn api_request(&mut self, floor: &mut Floor, client: ClientId, text: &str) {
        let malformed = |id: Value, msg: &str| {
            json!({ "id": id, "status": 400, "error": { "code": -1000, "msg": msg }, "rateLimits": [] }).to_string()
        };
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            return floor.hub.text(client, malformed(Value::Null, "The request is not JSON."));
        };
        let id = request["id"].clone();
        let Some(method) = request["method"].as_str() else {
            return floor.hub.text(client, malformed(id, "The request has no method."));
        };
        let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let params: Params = match request["params"].as_object() {
            Some(map) => map.iter().map(|(k, v)| (k.clone(), word(v))).collect(),
            None => Params::new(),
        };
        let weight = match method {
            "depth" => 5,
            "exchangeInfo" | "account.status" => 20,
            "order.status" => 4,
            _ => 1,
        };
        let outcome = match self.spend(floor, weight) {
            Err(reply) => Err((reply.status, serde_json::from_str(&reply.body).unwrap_or(Value::Null))),
            Ok(()) => self
                .api_call(floor, client, method, &params)
                .map_err(|e| (e.status, json!({ "code": e.code, "msg": e.msg }))),
        };
        let mut limits = vec![json!({
            "rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1,
            "limit": floor.config.binance.spot_weight_per_minute_max, "count": self.used_weight(),
        })];
        if method == "order.place" {
            limits.insert(
                0,
                json!({
                    "rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10,
                    "limit": floor.config.binance.orders_per_10s_max, "count": self.orders_of_10s(),
                }),
            );
        }
        let limits = Value::from(limits);
        let answer = match outcome {
            // The result is the REST body, byte for byte.
            Ok(result) => format!(r#"{{"id":{id},"status":200,"result":{result},"rateLimits":{limits}}}"#),
            Err((status, error)) => format!(r#"{{"id":{id},"status":{status},"error":{error},"rateLimits":{limits}}}"#),
        };
        let late_ms = floor.faults.take("late_ack", "").map_or(0, |f| f.ms);
        floor.answer(client, answer, late_ms);
    }

    fn api_call(
        &mut self,
        floor: &mut Floor,
        client: ClientId,
        method: &str,
        params: &Params,
    ) -> Result<String, ApiError> {
        match method {
            "ping" => return Ok("{}".to_owned()),
            "time" => return Ok(format!(r#"{{"serverTime":{}}}"#, floor.now_ms())),
            "depth" => return rest::depth(self, floor, params),
            "exchangeInfo" => return rest::exchange_info(self, floor, params),
            "session.status" => {
                return Ok(json!({ "apiKey": null, "authorizedSince": null, "connectedSince": floor.now_ms(), "returnRateLimits": true, "serverTime": floor.now_ms() }).to_string());
            }
            "session.logon" => {
                return Err(ApiError::bad(
                    -1000,
                    "session.logon needs an Ed25519 key; this simulator has an HMAC one.",
                ));
            }
            "userDataStream.unsubscribe" => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.user = None;
                }
                return Ok("{}".to_owned());
            }
            _ => {}
        }
        let known = [
            "order.place",
            "order.test",
            "order.cancel",
            "order.status",
            "openOrders.cancelAll",
            "account.status",
            "userDataStream.subscribe.signature",
        ];
        if !known.contains(&method) {
            return Err(ApiError::bad(-1000, &format!("Unknown method '{method}'.")));
        }
        self.admit_api(floor, params)?;
        match method {
            "order.place" => {
                self.spend_order(floor)?;
                self.new_order(floor, params, false)
            }
            "order.test" => self.new_order(floor, params, true),
            "order.cancel" => self.cancel_order(floor, params),
            "order.status" => self.query_order(floor, params),
            "openOrders.cancelAll" => self.cancel_all(floor, params),
            "account.status" => rest::account(self, floor, params),
            _ => {
                let id = self.next_subscription;
                self.next_subscription += 1;
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.user = Some(id);
                }
                Ok(format!(r#"{{"subscriptionId":{id}}}"#))
            }
        }
    }

    /// Parameters sorted by name, without the signature, raw UTF-8.
    fn admit_api(&self, floor: &mut Floor, params: &Params) -> Result<(), ApiError> {
        match params.get("apiKey") {
            None => return Err(ApiError::bad(-2014, "API-key format invalid.")),
            Some(key) if *key != floor.config.account.api_key => {
                return Err(ApiError {
                    status: 401,
                    code: -2015,
                    msg: "Invalid API-key, IP, or permissions for action.".to_owned(),
                });
            }
            Some(_) => {}
        }
        self.on_time(floor, params)?;
        let parts = params.iter().filter(|(k, _)| *k != "signature").map(|(k, v)| format!("{k}={v}"));
        let payload = parts.collect::<Vec<_>>().join("&");
        if params.get("signature") != Some(&hmac_sha256_hex(&floor.config.account.api_secret, &payload)) {
            return Err(ApiError::bad(-1022, "Signature for this request is not valid."));
        }
        Ok(())
    }
}
