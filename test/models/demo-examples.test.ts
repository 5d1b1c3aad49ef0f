// The demo model on the example images in f32; also on the second driver.

import { demoExampleTests } from "./demo-examples.ts";

await demoExampleTests("f32");
