//! The attributes of a request, independent of the gateway message that carries them.

use std::borrow::Cow;

use super::find::Flaw;
use super::source::ClaimPath;

/// The value of a source: nothing, a text, or something that can't be one.
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

/// The attributes of a request, as a message reports them.
pub(crate) trait RequestAttributes {
    /// A request header, by its lower-case name. Repeated ones are joined by commas, as in HTTP.
    fn header(&self, name: &str) -> Found<'_>;
    /// A request header that contains a name. If repetitions can be told apart, they must agree: a
    /// request with two different names is malformed.
    fn name_header(&self, name: &str) -> Found<'_> {
        self.header(name)
    }
    /// Each line of a request header, byte for byte. If they can't be told apart, they are joined
    /// by commas.
    fn raw_lines(&self, name: &str) -> impl Iterator<Item = &[u8]>;
    /// The name in the client's certificate: its first URI, or else its first DNS name, or else its
    /// subject.
    fn principal(&self) -> Option<&str>;
    /// The path with its query.
    fn path(&self) -> &str;
    /// The values at that path in the metadata of that namespace: one for each payload that has it.
    fn metadata<'a>(
        &'a self,
        namespace: &str,
        path: &ClaimPath,
    ) -> impl Iterator<Item = MetadataValue<'a>>;
    /// An entry of the route's `context_extensions`.
    fn context(&self, key: &str) -> Option<&str>;
    /// Envoy's id of the request.
    fn request_id(&self) -> Found<'_>;
}

/// A request that the gateway asks about before it lets it through.
pub(crate) trait CheckedRequest: RequestAttributes {
    /// The method, such as `GET`.
    fn method(&self) -> &str;
    /// `http` or `https`.
    fn scheme(&self) -> &str;
}
