// Holds objects against the schemas of build/schemas: node validate.mjs MODULES <objects.json
// On stdin is a list of Kubernetes' objects and CycloneDX' documents, on stdout one list of mistakes
// for each. Kubernetes' schemas let every field pass that they do not name; its API server warns of
// these, and drops them. So the fields are looked up in the declarations beside the schemas, too.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const modules = process.argv[2];
const require = createRequire(join(modules, "package.json"));

const declarations = new Map();

// The fields of an interface: their types, and where these are declared.
function declared(path) {
  if (!declarations.has(path)) {
    const text = readFileSync(path, "utf8");
    const places = new Map();
    for (const [, names, from] of text.matchAll(/^import \{ ([^}]*) \} from "([^"]+)";/gm)) {
      const place = from.startsWith(".")
        ? join(dirname(path), from.replace(/\.js$/, ""))
        : join(modules, from);
      for (const name of names.split(", ")) places.set(name, `${place}.d.ts`);
    }
    const body = text.match(/^export interface \w+(?: extends \w+)? \{\n([^]*?)^\}/m);
    const fields = body && new Map([...body[1].matchAll(/^    "(.+?)"\??: (.*?);?$/gm)].map(
      ([, name, type]) => [name, type]));
    declarations.set(path, { fields, places });
  }
  return declarations.get(path);
}

function unknownFields(object, path, at) {
  const { fields, places } = declared(path);
  if (fields === null || typeof object !== "object" || object === null) return [];
  return Object.entries(object).flatMap(([name, value]) => {
    const here = `${at}/${name}`;
    if (!fields.has(name)) return [`${here}: there is no such field`];
    const known = (fields.get(name).match(/I\w+/g) ?? []).find((word) => places.has(word));
    if (known === undefined) return [];
    const inner = places.get(known);
    if (!existsSync(inner)) throw new Error(`no ${inner}`);
    return Array.isArray(value)
      ? value.flatMap((one, index) => unknownFields(one, inner, `${here}/${index}`))
      : unknownFields(value, inner, here);
  });
}

async function kubernetes(object) {
  const { apiVersion, kind } = object;
  const [version, group] = apiVersion.split("/").reverse();
  const capital = (word) => word[0].toUpperCase() + word.slice(1);
  const name = `IoK8sApi${capital(group ?? "core")}${capital(version)}${kind}`;
  const folder = join(modules, "kubernetes-models");
  const declaration = join(folder, group ?? "", version, `${kind}.d.ts`);
  if (!existsSync(declaration)) return [`there is no ${kind} of ${apiVersion}`];
  const { validate } = await import(pathToFileURL(join(folder, "_schemas", `${name}.js`)));
  const errors = validate(object) ? [] : validate.errors.map(
    (error) => `${error.instancePath}: ${error.message ?? error.keyword} ${JSON.stringify(error.params)}`);
  return [...errors, ...unknownFields(object, declaration, "")];
}

function cyclonedx(document) {
  const Ajv = require("ajv").default;
  const ajv = new Ajv({ strict: false, allErrors: true });
  require("ajv-formats").default(ajv);
  for (const name of ["iri-reference", "idn-email"]) ajv.addFormat(name, true);
  const schema = (name) => JSON.parse(readFileSync(
    join(modules, "@cyclonedx/cyclonedx-library/res/schema", `${name}.SNAPSHOT.schema.json`), "utf8"));
  for (const name of ["spdx", "jsf-0.82", "cryptography-defs"]) {
    ajv.addSchema(schema(name), `http://cyclonedx.org/schema/${name}.SNAPSHOT.schema.json`);
  }
  const validate = ajv.compile(schema(`bom-${document.specVersion}`));
  return validate(document) ? [] : validate.errors.map(
    (error) => `${error.instancePath}: ${error.message} ${JSON.stringify(error.params)}`);
}

const objects = JSON.parse(readFileSync(0, "utf8"));
const verdicts = [];
for (const object of objects) {
  verdicts.push(object.bomFormat === "CycloneDX" ? cyclonedx(object) : await kubernetes(object));
}
console.log(JSON.stringify(verdicts));
