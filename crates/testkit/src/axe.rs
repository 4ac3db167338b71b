//! Owns looking for barriers in a page with axe-core, in light and dark, on a phone's width and a desk's.

use serde_json::json;

use crate::chromium::Tab;
use crate::tools::find;
use crate::watch::{SLOWLY, eventually_within};

const WIDTHS: [u32; 2] = [390, 1280];
const SCHEMES: [&str; 2] = ["light", "dark"];

/// Starts axe-core. What it finds is in `window.barriers` afterwards, a text for each element.
const RUN: &str = "
    window.barriers = null;
    axe.run({ resultTypes: ['violations'] }).then(({ violations }) => {
        const told = ({ id, nodes }) => nodes.map((node) => `${id}: ${node.html} ${node.failureSummary}`);
        window.barriers = violations.flatMap(told);
    });";

/// `STREAMGATE_TEST_AXE_CORE`, else what the script gets.
fn axe_core() -> String {
    let path = find("STREAMGATE_TEST_AXE_CORE", "tests/tools/get-axe-core.sh");
    std::fs::read_to_string(path).unwrap()
}

/// Fails if axe-core finds a violation in any look of the page, or if the page is wider than its window.
pub async fn assert_no_barriers(tab: &Tab<'_>) {
    tab.evaluate(&axe_core()).await.unwrap();
    for width in WIDTHS {
        for scheme in SCHEMES {
            tab.looks(width, scheme).await;
            let what = format!("a page {width} wide, {scheme}");
            tab.evaluate(RUN).await.unwrap();
            let found = eventually_within(SLOWLY, "axe-core has looked", async || {
                let found = tab.evaluate("window.barriers").await?;
                (!found.is_null()).then_some(found)
            });
            assert_eq!(found.await, json!([]), "{what}");
            let fits = tab.evaluate("document.documentElement.scrollWidth <= innerWidth");
            assert_eq!(fits.await.unwrap(), true, "{what}");
        }
    }
}
