//! What a request shows of itself, whichever message of the gateway carries it.

use std::borrow::Cow;

use super::find::Flaw;
use super::source::ClaimPath;

/// What a source has: nothing, a text, or something that can't be one.
pub(crate) type Found<'a> = Result<Option<Cow<'a, str>>, Flaw>;

/// A value in the metadata that Envoy's filters attach to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum MetadataValue<'a> {
    /// Null.
    Null,
    /// A string.
    Text(&'a str),
    /// A number; protobuf has only doubles.
    Number(f64),
    /// A boolean, a list or an object.
    Other,
}

/// The attributes of a request, as a message about it has them.
pub(crate) trait RequestAttributes {
    /// A request header, by its lower-case name. Repeated ones are joined by commas, as HTTP has it.
    fn header(&self, name: &str) -> Found<'_>;
    /// A request header that names somebody or something. Where repetitions can be told apart, they must agree: a
    /// request with two different names is malformed.
    fn name_header(&self, name: &str) -> Found<'_> {
        self.header(name)
    }
    /// Each line of a request header, byte for byte. Where they can't be told apart, they are joined by commas.
    fn raw_lines(&self, name: &str) -> impl Iterator<Item = &[u8]>;
    /// The name in the client's certificate: the first of its addresses, or else of its hosts, or else its subject.
    fn principal(&self) -> Option<&str>;
    /// The path with its query.
    fn path(&self) -> &str;
    /// The values at that path in the metadata of that namespace: one of each payload that has it.
    fn metadata<'a>(
        &'a self,
        namespace: &str,
        path: &ClaimPath,
    ) -> impl Iterator<Item = MetadataValue<'a>>;
    /// What the route says to us.
    fn context(&self, key: &str) -> Option<&str>;
    /// Envoy's id of the request.
    fn request_id(&self) -> Found<'_>;
}

/// A request that the gateway asks about before it lets it through.
pub(crate) trait CheckedRequest: RequestAttributes {
    /// `GET` and the like.
    fn method(&self) -> &str;
    /// `http` or `https`.
    fn scheme(&self) -> &str;
}
