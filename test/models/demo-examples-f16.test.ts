// The demo model on the example images in f16, on the first driver alone: the second takes half a minute for each type.

import { demoExampleTests } from "./demo-examples.ts";

await demoExampleTests("f16");
