//! Names of parameters while a network is visited.

/// Where a visitor is.
#[derive(Debug, Default)]
pub(crate) struct Path(Vec<String>);

impl Path {
    pub(crate) fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// The name of the parameter that is visited.
    pub(crate) fn name(&self) -> String {
        self.0.join(".")
    }
}
