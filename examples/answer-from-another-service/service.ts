// The other service: its own worker on its own queue, and a client that describes one product.
//
//     node service.js IMAGE MODEL_DIGEST DTYPE

import { randomUUID } from "node:crypto";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Client, Connection } from "@temporalio/client";
import { DefaultLogger, NativeConnection, Runtime, Worker } from "@temporalio/worker";
import type { describeProduct, ProductDescription, ProductPicture } from "./describe-product.ts";

const taskQueue = "product-pictures";

/** Describe one product's picture, as the service would for every new product. */
export async function describeOnce(address: string, picture: ProductPicture): Promise<ProductDescription> {
  const connection = await Connection.connect({ address });
  const native = await NativeConnection.connect({ address });
  try {
    const worker = await Worker.create({
      connection: native,
      taskQueue,
      workflowsPath: fileURLToPath(new URL("./describe-product.js", import.meta.url)),
    });
    const client = new Client({ connection });
    return await worker.runUntil(
      client.workflow.execute<typeof describeProduct>("describeProduct", {
        taskQueue,
        workflowId: `product-${randomUUID()}`,
        args: [picture],
      }),
    );
  } finally {
    await connection.close();
    await native.close();
  }
}

async function main(): Promise<void> {
  const [image, digest, dtype] = process.argv.slice(2);
  if (image === undefined || digest === undefined || (dtype !== "f32" && dtype !== "f16")) {
    process.stderr.write("usage: service.js IMAGE MODEL_DIGEST f32|f16\n");
    process.exitCode = 2;
    return;
  }
  Runtime.install({ logger: new DefaultLogger("WARN") });
  const address = process.env.TEMPORAL_ADDRESS ?? "127.0.0.1:7233";
  // Workers know no working folder of ours: a path becomes a file: URI here.
  const uri = /^\w+:\/\//.test(image) ? image : pathToFileURL(image).href;
  const description = await describeOnce(address, { image: uri, model: { ref: "", digest, dtype } });
  process.stdout.write(`${JSON.stringify(description, null, 2)}\n`);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
