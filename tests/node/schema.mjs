// What an AI SDK's own schema says of the UI message stream: each type's fields, and the finish reasons.

const unnamed = "data-*"; // the one type that the schema knows by a test and not by a name

export const schemaOf = async (ai) => {
  // The SDK makes a JSON schema of its Zod schema but lets no option pass, and fails at what JSON Schema cannot say.
  const option = { value: "any", configurable: true, enumerable: false, writable: true };
  Object.defineProperty(Object.prototype, "unrepresentable", option);
  let schema;
  try {
    schema = await ai.uiMessageChunkSchema().jsonSchema;
  } finally {
    delete Object.prototype.unrepresentable;
  }
  const types = {};
  for (const { properties: { type, ...fields }, required = [] } of schema.anyOf)
    types[type.const ?? unnamed] = Object.fromEntries(Object.keys(fields).map((name) => [name, required.includes(name)]));
  const finish = schema.anyOf.find(({ properties }) => properties.type.const === "finish");
  return { types, finishReasons: finish.properties.finishReason?.enum ?? [] };
};
