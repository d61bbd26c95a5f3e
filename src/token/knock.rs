//! Whether an authority is there, without a word of who asks: its public metadata is read, which proves name, way and
//! TLS, and tells its time. No token is spent.

use jiff::Timestamp;
use reqwest::Method;
use url::Url;

use super::TokenError;
use super::endpoint::TransportError;
use super::entra::Subject;
use crate::cloud::Cloud;
use crate::http::{Pool, headers};

/// The metadata that every authority of Microsoft's shows to everybody.
const METADATA: &str = "/common/v2.0/.well-known/openid-configuration";

/// Asks the authority of `cloud` and answers the `Date` that it tells.
///
/// # Errors
/// There is no answer, in the words of a request for a token that gets none. Whatever it answers, it is there.
pub async fn knock(pool: &Pool, cloud: &Cloud) -> Result<Option<Timestamp>, TokenError> {
    let mut url: Url = cloud.authority.clone();
    url.set_path(METADATA);
    let answer = pool.request(Method::GET, url).send().await.map_err(|error| {
        let subject = Subject {
            tenant: None,
            client: "",
            cloud: &cloud.name,
            authority: cloud.authority.as_str().trim_end_matches('/'),
            audience: "",
            thumbprint: "",
        };
        TokenError::unreachable(TransportError::NoAnswer(error.without_url()), &subject)
    })?;
    Ok(headers::date(answer.headers()))
}
