//! Request bodies with any content.

/// Returns whether a body is a valid request to either endpoint.
pub(crate) fn check(data: &[u8]) -> bool {
    let readers = [vispec_serve::read_chat, vispec_serve::read_completion];
    let errors = readers.map(|read| read(data).err());
    for error in errors.iter().flatten() {
        assert!(error["error"]["message"].is_string());
        assert!(error["error"]["code"].is_string());
    }
    errors.iter().any(Option::is_none)
}
