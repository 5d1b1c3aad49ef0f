// The same ids on adapters of other kinds: those for which much is compiled anew.

import { testIdsOn } from "./ids-on-adapter.ts";

for (const name of ["lavapipe, 16 lanes", "lavapipe, GPU kernels, no f16, small bindings"]) testIdsOn(name);
