//! Counts kernel launches on devices that CubeCL drives.

#[cfg(feature = "cube")]
mod observed {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl LaunchObserver for Count {
        fn launched(&self, _kernel: &'static str) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts launches until it is dropped.
    pub(crate) struct Launches {
        count: Arc<Count>,
        _observation: LaunchObservation,
    }

    impl Launches {
        pub(crate) fn watch() -> Self {
            let count = Arc::new(Count::default());
            Self {
                _observation: LaunchObservation::new(count.clone()),
                count,
            }
        }

        pub(crate) fn so_far(&self) -> usize {
            self.count.0.load(Ordering::Relaxed)
        }
    }
}

#[cfg(not(feature = "cube"))]
mod observed {
    /// Counts nothing: without CubeCL there are no launches.
    pub(crate) struct Launches;

    impl Launches {
        pub(crate) fn watch() -> Self {
            Self
        }

        pub(crate) fn so_far(&self) -> usize {
            0
        }
    }
}

pub(crate) use observed::Launches;
