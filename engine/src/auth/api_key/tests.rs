//! Gateways with API keys.
