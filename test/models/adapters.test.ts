// The same ids on adapters of other kinds, as far as this one can stand for them: few cases, on those for which little is
// compiled. adapters.long.test.ts has others, and `npm run test:adapters` all cases on all of them.

import { testIdsOn } from "./ids-on-adapter.ts";

for (const name of ["lavapipe, 4 lanes", "lavapipe, no f16", "lavapipe, small bindings"]) testIdsOn(name);
